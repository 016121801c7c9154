"""Speed on this machine: students, teachers, flows and other systems in one run."""
