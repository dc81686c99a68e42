"""Pictures of what a run did: overlays, curves and the report. Floor 3.

Importing this, or `overlays`, imports no matplotlib.
"""
