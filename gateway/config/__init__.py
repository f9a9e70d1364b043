"""How is the gateway set up?

One frozen Settings, read once; if anything in it is unknown or wrong, nothing starts.
"""

from gateway.config.origins import said
from gateway.config.reading import PREFIX, SettingsError, load
from gateway.config.sample import sample_toml
from gateway.config.settings import Settings, settings_fields
from gateway.config.upstreams import RELAY_BASE_URL, UpstreamConfig

__all__ = [
    "PREFIX",
    "RELAY_BASE_URL",
    "Settings",
    "SettingsError",
    "UpstreamConfig",
    "load",
    "said",
    "sample_toml",
    "settings_fields",
]
