"""An OpenID Connect issuer on loopback: keys and a certificate of its own, both made by openssl.

Prints one line of JSON about itself. Then every line on its standard input is the claims of a token, which it
signs and prints; it ends with its standard input.
"""

import base64, hashlib, http.server, json, os, ssl, subprocess, sys, tempfile, threading

folder = tempfile.TemporaryDirectory()
at = lambda name: os.path.join(folder.name, name)


def openssl(*words, given=None):
    return subprocess.run(["openssl", *words], input=given, check=True, capture_output=True).stdout


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=DNS:localhost", "-keyout", at("tls.key"), "-out", at("tls.pem"))
openssl("genrsa", "-out", at("token.key"), "2048")
modulus = openssl("rsa", "-in", at("token.key"), "-noout", "-modulus").decode().strip().split("=")[1]
keys = {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "e": "AQAB",
                  "n": encoded(bytes.fromhex(modulus))}]}
documents = {"/keys": keys}
asked = []


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        document = documents.get(self.path)
        body = json.dumps(document).encode()
        self.send_response(200 if document else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(at("tls.pem"), at("tls.key"))
server.socket = tls.wrap_socket(server.socket, server_side=True)
issuer = "https://localhost:%d/tenant" % server.server_address[1]
documents["/tenant/.well-known/openid-configuration"] = {
    "issuer": issuer, "jwks_uri": issuer.removesuffix("/tenant") + "/keys"}
threading.Thread(target=server.serve_forever, daemon=True).start()
certificate = ssl.PEM_cert_to_DER_cert(open(at("tls.pem")).read())
print(json.dumps({"issuer": issuer, "thumbprint": hashlib.sha1(certificate).hexdigest()}), flush=True)

for line in sys.stdin:
    if line.strip() == "asked":
        print(json.dumps(asked), flush=True)
        continue
    head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
    signed = encoded(json.dumps(head).encode()) + "." + encoded(line.strip().encode())
    signature = openssl("dgst", "-sha256", "-sign", at("token.key"), given=signed.encode())
    print(signed + "." + encoded(signature), flush=True)
