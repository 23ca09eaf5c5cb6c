"""Azure on loopback: Resource Manager with disks that are real, instance metadata, token endpoints."""
