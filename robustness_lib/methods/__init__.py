"""The papers' methods, as functions of tensors; nothing here trains or records."""
