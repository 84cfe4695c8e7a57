"""Redis or Valkey: what may be lost at any moment, asked in a way that never holds a request up."""
