"""From rewards and groups to advantages: `Batch -> Batch`, in `prepare`."""
