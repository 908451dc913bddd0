"""What TensorBoard shows: `tags.py` names it, `writer.py` writes it, one module for each kind of thing beside them."""
