import Foundation
import Glibc
import TestSupport

/// An S3 store on a loopback port, whose credentials are ``environment``. Ends with ``stop()``, and with the value.
final class S3Server {
    enum Kind: String, CaseIterable {
        /// `rclone serve s3`, of a directory.
        case rclone
        /// The same by HTTPS, and HTTP/2.
        case secure
        /// moto, in memory.
        case moto
    }

    static let environment = [
        "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "geheimnis", "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    ]

    let kind: Kind
    let port: Int
    private let root: String
    private let identity: Certificate?
    private var server: Child?

    /// Of this machine, fetched by scripts/fetch-test-servers into the package's .build.
    private static func program(_ name: String) throws -> String {
        let path =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().path + "/.build/test-servers/bin/" + name
        guard access(path, X_OK) == 0 else { throw Failure("\(path) is missing: scripts/fetch-test-servers") }
        return path
    }

    /// - Parameter root: the directory whose directories are rclone's buckets.
    init(_ kind: Kind, root: String) throws {
        self.kind = kind
        self.root = root
        identity = kind == .secure ? try Certificate(in: root + "/identity") : nil
        port = try Nginx.freePort()
        try start()
    }

    var endpoint: String { "http\(identity == nil ? "" : "s")://127.0.0.1:\(port)" }

    /// Of an import of one of its buckets.
    var importArguments: [String] {
        ["--endpoint", endpoint] + (identity.map { ["--ca-file", $0.authority] } ?? [])
    }

    func start() throws {
        let arguments =
            switch kind {
            case .rclone, .secure:
                [
                    try Self.program("rclone"), "--config", "/dev/null", "serve", "s3", "--addr", "127.0.0.1:\(port)",
                    "--auth-key", "KEY,geheimnis", "--vfs-cache-mode", "off", "--dir-cache-time", "0s", root,
                ] + (identity.map { ["--cert", $0.certificate, "--key", $0.key] } ?? [])
            case .moto: [try Self.program("moto_server"), "-H", "127.0.0.1", "-p", "\(port)"]
            }
        // Pages of seven keys, so that every listing has several.
        let server = try Child(arguments, environment: ["MOTO_S3_DEFAULT_MAX_KEYS": "7"])
        self.server = server
        try until("\(kind)", seconds: 60) {
            if let output = server.poll() { throw Failure("\(output)") }
            return Nginx.answers(port)
        }
    }

    func stop() {
        server?.kill(SIGKILL)
        _ = try? server?.wait(seconds: 5)
        server = nil
    }

    /// Runs Python with moto's boto3: `s3` is a client of the store that gives no checksums by itself, and `arguments` are
    /// in `a`.
    @discardableResult
    func python(_ script: String, _ arguments: [String] = []) throws -> String {
        let start = """
            import boto3, botocore, os, sys
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='KEY', aws_secret_access_key='geheimnis',
                region_name='us-east-1', config=botocore.config.Config(
                    s3={'addressing_style': 'path'}, request_checksum_calculation='when_required'))
            a = sys.argv[2:]

            """
        let output = try run([try Self.program("python3"), "-c", start + script, endpoint] + arguments)
        guard output.code == 0 else { throw Failure("\(output)") }
        return output.out
    }

    /// Makes the bucket `source` of a directory, as rclone copies one with these options.
    func fill(from directory: String, _ options: String...) throws {
        guard kind == .moto else { return }
        let output = try run(
            [
                try Self.program("rclone"), "--config", "/dev/null", "copy", directory,
                ":s3,provider=Other,endpoint='\(endpoint)',access_key_id=KEY,secret_access_key=geheimnis:source",
            ] + options)
        guard output.code == 0 else { throw Failure("\(output)") }
    }
}
