"""All that lies on disk in a home: its file names, ids, durable writes, leases and records."""
