"""Every decoder of what comes from outside, asked with what nobody meant to send."""
