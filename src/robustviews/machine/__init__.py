"""What work runs on: devices, memory, processes, the compiler, and feeds of images."""
