"""Run the gateway: `python -m mms.gateway`."""

from mms.gateway.app import main

if __name__ == "__main__":
    main()
