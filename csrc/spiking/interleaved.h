// A weight whose rows are multiplied with one vector, several at a time: made from compressed rows
// once a call, read at every time step. Rows of about equal length stand side by side, so that a
// row is a lane and its sum needs no adding up of lanes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/scratch.h"
#include "sparse/formats.h"

namespace synops {

constexpr int64_t kGroup = 8;    // rows of a group, each with columns of its own
constexpr int64_t kShared = 16;  // rows of a group with equal columns

// Where rows stand. Place p of the vector belongs to row_of[p]; places behind the last row are
// there to fill a group. Inputs follow the places, and one element that is always 0: what a row
// that is shorter than its group multiplies.
struct Places {
  int64_t rows, groups, inputs;
  bool shared;        // groups of kShared with equal columns, else of kGroup
  int32_t* row_of;    // (rows,)
  int32_t* place_of;  // (rows,)

  int64_t width() const { return shared ? kShared : kGroup; }
  int64_t count() const { return groups * width(); }
  int64_t zero() const { return count() + inputs; }
  int64_t size() const { return zero() + 1; }  // of the vector
  bool in_order() const {
    int32_t off = 0;
    for (int64_t p = 0; p < rows; ++p) off |= row_of[p] ^ static_cast<int32_t>(p);
    return off == 0;
  }
};

// Entry e of a group, begin[g] <= e < begin[g + 1], is values[e * width + i] for its row i times
// the element index[e * width + i] of the vector; index[e] where columns are shared.
struct Interleaved {
  int64_t groups;
  bool shared, wide;     // wide: int32 indices, else uint16
  const int64_t* begin;  // (groups + 1,)
  const void* index;
  void* values;  // in the arithmetic type
};

inline size_t places_bytes(int64_t rows) { return 2 * Scratch::round_up(rows * sizeof(int32_t)); }

// Rows in the order of `first`'s lengths and, among equals, of `second`'s (or null), the shortest
// first; stable. Blocks of kShared rows or more with equal columns stay together.
inline Places places_of(int64_t rows, int64_t inputs, const int32_t* first, const int32_t* second,
                        const RowBlocks& blocks, Scratch& room) {
  Places p{rows, 0, inputs, rows > 0 && blocks.rows % kShared == 0, nullptr, nullptr};
  const auto take = [&](int64_t n) {
    return static_cast<int32_t*>(room.take(n * sizeof(int32_t)));
  };
  p.row_of = take(rows);
  p.place_of = take(rows);
  p.groups = (rows + p.width() - 1) / p.width();
  if (p.shared) {
    int64_t place = 0;
    for (int64_t at = 0; at < rows; at += blocks.rows * blocks.step)
      for (int64_t j = 0; j < blocks.step; ++j)
        for (int64_t r = 0; r < blocks.rows; ++r)
          p.row_of[place++] = static_cast<int32_t>(at + j + r * blocks.step);
  } else {
    for (int64_t n = 0; n < rows; ++n) p.row_of[n] = static_cast<int32_t>(n);
    const auto length = [](const int32_t* crow, int32_t n) { return crow[n + 1] - crow[n]; };
    std::stable_sort(p.row_of, p.row_of + rows, [&](int32_t a, int32_t b) {
      const int32_t x = length(first, a), y = length(first, b);
      if (x != y || second == nullptr) return x < y;
      return length(second, a) < length(second, b);
    });
  }
  for (int64_t at = 0; at < rows; ++at) p.place_of[p.row_of[at]] = static_cast<int32_t>(at);
  return p;
}

// Entries that an interleaved weight has, padding included, and the bytes that it takes.
struct InterleavedSize {
  int64_t entries;
  size_t bytes;
};

inline InterleavedSize interleaved_size(const Places& p, const int32_t* crow, int64_t inputs,
                                        size_t value_bytes) {
  int64_t entries = 0;
  for (int64_t g = 0; g < p.groups; ++g) {
    int64_t longest = 0;
    for (int64_t at = g * p.width(); at < std::min((g + 1) * p.width(), p.rows); ++at)
      longest = std::max<int64_t>(longest, crow[p.row_of[at] + 1] - crow[p.row_of[at]]);
    entries += longest + inputs;
  }
  const int64_t indices = entries * (p.shared ? 1 : p.width());
  return {entries, Scratch::round_up((p.groups + 1) * sizeof(int64_t)) +
                       Scratch::round_up(indices * sizeof(int32_t)) +
                       Scratch::round_up(entries * p.width() * value_bytes)};
}

// Rows of w, whose columns are rows of the state from `offset` on, and before them `inputs` columns
// of a dense matrix (rows, inputs), which may be null where there are none.
template <class A, class I>
Interleaved interleave_as(const Places& p, const Csr& w, int64_t offset, const A* values,
                          const A* dense, int64_t inputs, const InterleavedSize& size,
                          Scratch& room) {
  const int64_t width = p.width(), each = p.shared ? 1 : width;
  int64_t* begin = static_cast<int64_t*>(room.take((p.groups + 1) * sizeof(int64_t)));
  I* index = static_cast<I*>(room.take(size.entries * each * sizeof(int32_t)));
  A* to = static_cast<A*>(room.take(size.entries * width * sizeof(A)));
  int64_t entry = 0;
  for (int64_t g = 0; g < p.groups; ++g) {
    begin[g] = entry;
    // Of every row of the group where its entries begin, and how many there are.
    int64_t from[kShared] = {}, length[kShared] = {}, longest = 0;
    int32_t row[kShared] = {};
    const int64_t first = g * width, held = std::min(width, p.rows - first);
    for (int64_t i = 0; i < held; ++i) {
      row[i] = p.row_of[first + i];
      from[i] = w.crow[row[i]];
      length[i] = w.crow[row[i] + 1] - from[i];
      longest = std::max(longest, length[i]);
    }
    for (int64_t k = 0; k < inputs; ++k, ++entry) {
      for (int64_t i = 0; i < width; ++i)
        to[entry * width + i] = i < held ? dense[row[i] * inputs + k] : A(0);
      std::fill_n(index + entry * each, each, static_cast<I>(p.count() + k));
    }
    // Entry by entry, so that they are written as they lie: row by row takes four times as long.
    for (int64_t j = 0; j < longest; ++j, ++entry)
      for (int64_t i = 0; i < width; ++i) {
        const bool inside = j < length[i];
        to[entry * width + i] = inside ? values[from[i] + j] : A(0);
        if (i < each)
          index[entry * each + i] =
              static_cast<I>(inside ? p.place_of[offset + w.col[from[i] + j]] : p.zero());
      }
  }
  begin[p.groups] = entry;
  return {p.groups, p.shared, sizeof(I) == 4, begin, index, to};
}

template <class A>
Interleaved interleave(const Places& p, const Csr& w, int64_t offset, const A* values,
                       const A* dense, int64_t inputs, const InterleavedSize& size, Scratch& room) {
  if (p.size() <= 65536)
    return interleave_as<A, uint16_t>(p, w, offset, values, dense, inputs, size, room);
  return interleave_as<A, int32_t>(p, w, offset, values, dense, inputs, size, room);
}

}  // namespace synops
