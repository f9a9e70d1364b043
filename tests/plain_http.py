"""How do tests speak to servers on loopback, which have no certificates?"""

import ssl
from typing import Final

# It trusts nobody. httpx reads all certificates of the world for each client that is given no
# other context, which takes it 20 ms.
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
