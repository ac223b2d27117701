import Foundation

/// A certificate for this machine's loopback, of an authority of its own.
struct Certificate {
    /// PEM files.
    let authority: String
    let certificate: String
    let key: String

    /// - Parameter folder: for the files; made.
    init(in folder: String) throws {
        (authority, certificate, key) = (folder + "/ca.pem", folder + "/cert.pem", folder + "/key.pem")
        try shell(
            """
            mkdir -p "$1"; cd "$1"
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
                -keyout ca.key -out ca.pem 2>/dev/null
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
                -keyout key.pem -out request.pem 2>/dev/null
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out cert.pem \
                -extfile <(echo subjectAltName=IP:127.0.0.1,DNS:localhost) 2>/dev/null
            """, [folder])
    }
}
