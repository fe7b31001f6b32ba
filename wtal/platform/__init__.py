"""Access to the machine: devices, processes, signals, files, progress."""
