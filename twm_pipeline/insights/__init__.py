"""What the mirror tells about the work: activity, response times, the flow of tasks, as tables and plots."""
