"""The command line: arguments become a call, and its outcome an exit code.

0 done or admitted, 1 rejected or not started, 2 usage or configuration, 3 no answer.
"""
