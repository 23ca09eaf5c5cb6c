"""What a run tells: the timeline of an image, its result, and the lines on the terminal."""
