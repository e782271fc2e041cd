"""What a page shows: figures, pictures, tables, claims; and how notebooks become pages."""
