"""An RTSP server that is not ours: GStreamer's gst-rtsp-server, with what the tests ask of a camera.

    rtsp_server.py [--auth METHOD USER PASSWORD] [--tls CERTIFICATE KEY] [--only udp|tcp] [--session SECONDS]
                   [--port PORT] MOUNT=LAUNCH...

METHOD is basic or digest; CERTIFICATE and KEY are PEM files. A LAUNCH has payloaders named pay0, pay1, as gst-rtsp-server wants them. The port is printed
once it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer

def factory(launch, transports, authenticated):
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(f"( {launch} )")
    made.set_shared(True)
    made.set_protocols(transports)
    if authenticated:
        role = Gst.Structure.new_empty("viewer")
        for permission in ("media.factory.access", "media.factory.construct"):
            role.set_value(permission, True)
        made.add_role_from_structure(role)
    return made


def main(arguments):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    transports = GstRtsp.RTSPLowerTrans.UDP | GstRtsp.RTSPLowerTrans.TCP
    port, session, auth, tls, mounts = "0", None, None, None, []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--auth":
            auth = [arguments.pop(0) for _ in range(3)]
        elif argument == "--tls":
            tls = [arguments.pop(0) for _ in range(2)]
        elif argument == "--only":
            word = arguments.pop(0)
            transports = GstRtsp.RTSPLowerTrans.UDP if word == "udp" else GstRtsp.RTSPLowerTrans.TCP
        elif argument == "--session":
            session = int(arguments.pop(0))
        elif argument == "--port":
            port = arguments.pop(0)
        else:
            mounts.append(argument.split("=", 1))
    server.set_service(port)
    rules = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if tls:
        rules.set_tls_certificate(Gio.TlsCertificate.new_from_files(*tls))
        rules.set_default_token(token)
    if auth:
        method, user, password = auth
        if method == "basic":
            rules.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            rules.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        else:
            rules.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            rules.add_digest(user, password, token)
    if auth or tls:
        server.set_auth(rules)
    for mount, launch in mounts:
        server.get_mount_points().add_factory(mount, factory(launch, transports, bool(auth or tls)))
    if session:
        def shorten(_server, client):
            client.connect("setup-request", lambda _client, context: context.session.set_timeout(session))
        server.connect("client-connected", shorten)
        GLib.timeout_add(500, lambda: server.get_session_pool().cleanup() or True)
    if server.attach(None) == 0:
        sys.exit("cannot listen")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main(sys.argv[1:])
