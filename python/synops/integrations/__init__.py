"""synops inside other libraries, a module each; importing one needs the library that it is named
after.

    synops.integrations.transformers    attention with entropies in Hugging Face transformers
"""
