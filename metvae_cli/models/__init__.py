"""Models: prior, encoder, decoder and likelihood, put together as a variational auto-encoder."""
