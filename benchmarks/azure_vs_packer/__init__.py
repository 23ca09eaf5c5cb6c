"""Packer's azure-chroot and this project do the same on the same emulator: ``python -m benchmarks.azure_vs_packer``.

See ``benchmarks/README.md``.
"""
