"""``python benchmarks/publish.py``: the pages of asv, readable without a network.

asv's pages load their scripts from content delivery networks and stay empty without one. This
publishes, puts those scripts beside the pages (from the npm registry, once; kept in .asv/vendor)
and points the pages at them. Needs npm.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / ".asv" / "html"
VENDOR = ROOT / ".asv" / "vendor"

# What a page names, by the end of its address: npm package and the file inside.
SCRIPTS = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
# A script or style sheet from elsewhere. Links to follow by hand are not meant.
_TAG = re.compile(r"<(?:script|link)\b[^>]*?\b(?:src|href)=\"(https?:)?//[^>]*>")
_ADDRESS = re.compile(r"\b(src|href)=\"(?:https?:)?//[^\"]*/([^\"/]+)\"")
_CHECKS = re.compile(r"\s+(?:integrity|crossorigin|referrerpolicy)=\"[^\"]*\"")


def vendored(name: str) -> str:
    """Where the page finds a script, relative to itself.

    Raises:
        KeyError: asv asks for a script that is not in SCRIPTS.
    """
    package, file = SCRIPTS[name]
    return f"vendor/{package}/{file}"


def localize(page: str) -> str:
    """The page with every script and style sheet taken from beside it."""

    def local(tag: re.Match[str]) -> str:
        bare = _CHECKS.sub("", tag[0])
        return _ADDRESS.sub(lambda m: f'{m[1]}="{vendored(m[2])}"', bare)

    return _TAG.sub(local, page)


def remote(page: str) -> list[str]:
    """The tags that still load something from elsewhere."""
    return [tag[0] for tag in _TAG.finditer(page)]


def download(package: str, folder: Path) -> None:
    """Unpacks an npm package into the folder, unless it is there."""
    if folder.exists():
        return
    VENDOR.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=VENDOR, check=True, capture_output=True, text=True
    )
    archive = VENDOR / packed.stdout.split()[-1]
    fresh = folder.with_suffix(".part")
    with tarfile.open(archive) as tar:
        tar.extractall(fresh, filter="data")
    (fresh / "package").rename(folder)
    shutil.rmtree(fresh)
    archive.unlink()


def add_scripts() -> None:
    """Puts what the pages name into html/vendor; bootstrap's style sheet wants its fonts too."""
    wanted = [*SCRIPTS.values(), ("bootstrap@3.1.1", "dist/fonts")]
    for package, file in wanted:
        download(package, VENDOR / package)
        source, target = VENDOR / package / file, HTML / "vendor" / package / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def main() -> int:
    """Publishes; the exit status."""
    status = subprocess.run([sys.executable, "-m", "asv", "publish"], cwd=ROOT).returncode
    if status:
        return status
    try:
        add_scripts()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"{HTML}: readable with a network only; npm could not run: {error}", file=sys.stderr)
        return 1
    for path in HTML.glob("*.html"):
        page = localize(path.read_text())
        if left := remote(page):
            print(f"{path}: still loads from elsewhere: {left}", file=sys.stderr)
            return 1
        path.write_text(page)
    print(f"{HTML / 'index.html'}: readable offline, over http: python -m http.server -d {HTML}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
