"""The layouts on disk that wtal reads: one module a layout, their interface, and the registry."""
