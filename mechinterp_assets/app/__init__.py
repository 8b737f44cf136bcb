"""The program around the assets: command line, servers, whole studies in one process, exports."""
