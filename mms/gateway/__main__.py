"""`python -m mms.gateway`: run the gateway."""

from mms.gateway.app import main

if __name__ == "__main__":
    main()
