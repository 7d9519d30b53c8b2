"""What measures and trains, run from the root of the repository; not installed, not published."""
