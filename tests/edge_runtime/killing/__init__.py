"""Ends a device's process at every step that it takes below its state folder, and looks at what is left."""
