"""Azure on loopback: Resource Manager with disks that are real, the instance metadata service and the token endpoints."""
