"""Where calls are seen: in process, on the wire, in what others have logged."""
