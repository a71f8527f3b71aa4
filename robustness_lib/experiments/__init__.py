"""The papers' sections, each as a list of jobs and a way to run one."""
