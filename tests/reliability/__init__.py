"""What wavedistill does with broken files, kills, full disks and crowds: docs/reliability.md says what was measured."""
