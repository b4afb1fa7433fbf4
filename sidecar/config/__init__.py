"""Configuration: what can be set (keys), what it is by default (model), and how it is read (load).

This package itself imports nothing, so that a client which only needs a duration read does not
pay for the rest.
"""
