"""stub"""


def add(app, service): ...
