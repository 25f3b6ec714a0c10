"""How the pipeline runs elsewhere: studies, schedules, containers."""
