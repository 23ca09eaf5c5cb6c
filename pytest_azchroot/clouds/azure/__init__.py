"""The cloud whose disks are managed disks of Azure, attached to the virtual machine that builds.

Nothing here loads Azure's SDKs before a build asks for something: they take half a second.
"""
