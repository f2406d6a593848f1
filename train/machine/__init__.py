"""What training needs of its machine: devices, processes, signals, the terminal, and a thread that writes files."""
