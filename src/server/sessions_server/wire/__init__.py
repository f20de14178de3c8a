"""What travels in bodies: requests that name their wrong member, responses as the official clients want them."""
