"""The commands of `feedback-app`, one file a group."""
