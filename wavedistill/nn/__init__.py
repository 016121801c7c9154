"""Network parts shared by teacher and student."""
