"""One Docker engine for all tests of compose."""
import os

import pytest

from engine import Engine, Unavailable


@pytest.fixture(scope="session")
def engine():
    try:
        engine = Engine()
    except Unavailable as reason:
        if os.environ.get("REQUIRE_ENGINE"):
            raise
        pytest.skip(str(reason))
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def images(engine):
    """The variables that name the images."""
    assert engine.docker("image", "ls", "-q") == "", "the engine is not empty"
    return engine.load_images()
