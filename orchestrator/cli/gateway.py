"""`pigeonhole gateway`."""

from pathlib import Path

import click

from orchestrator.cli import speaking
from orchestrator.cli.output import print_message


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen at.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File of tokens, mode 600, with lines `ROLE TOKEN [NAME]`; the roles are view, push and operate. Needed "
    "wherever other machines can reach the address.",
)
@click.option(
    "--allow-host", "allowed_hosts", multiple=True, metavar="NAME",
    help="Name or address by which clients call the gateway, beside those of this machine; may be repeated.",
)  # fmt: skip
@click.option(
    "--root", "roots", multiple=True, type=click.Path(path_type=Path),
    help="Folder below which jobs may read images and write results; may be repeated. Default: none.",
)  # fmt: skip
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate, PEM; with it only HTTPS is served.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@click.option(
    "--listing-grace", "listing_grace_s", type=click.FloatRange(min=0), default=0, show_default=True,
    help="Seconds that its end waits for jobs whose images are still being listed. For containers, which kill the "
    "processes that list them; elsewhere they go on without the gateway.",
)  # fmt: skip
def gateway(
    host: str,
    port: int,
    token_file: Path | None,
    allowed_hosts: tuple[str, ...],
    roots: tuple[Path, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    listing_grace_s: float,
) -> None:
    """Serve lines, jobs and models over HTTP until a signal comes.

    The access log goes to standard output, one JSON object a request. `/docs` describes every call.

    \b
    Examples:
      pigeonhole gateway
      pigeonhole gateway --host 192.168.1.10 --token-file tokens.txt --tls-cert cert.pem --tls-key key.pem
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.gateway.context import GatewayContext, GatewayOptions, check_roots
    from orchestrator.gateway.serve import serve

    options = GatewayOptions(
        host, port, token_file, tls_cert, tls_key, allowed_hosts, check_roots(roots), listing_grace_s
    )
    with speaking.output():  # nothing is said from here on
        serve(GatewayContext(get_settings(), options), lambda url: print_message(f"the gateway listens at {url}"))
