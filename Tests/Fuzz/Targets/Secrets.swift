@testable import HSMRemotes

// Files and answers that hold credentials.

extension FuzzTarget {
    static let secrets = [
        FuzzTarget(name: "ini", check: ini),
        FuzzTarget(name: "netrc", check: netrc),
        FuzzTarget(name: "credentials", check: credentials),
    ]

    /// The shared files of AWS's tools; the first line is the profile's name.
    private static func ini(_ input: [UInt8]) throws {
        let name = lines(input)[0]
        let text = String(decoding: input, as: UTF8.self)
        for (secrets, settings) in [(text, nil), (nil, text), (text, text)] as [(String?, String?)] {
            let files = ProfileFiles(secrets: secrets, settings: settings)
            for name in [name, "default", "work"] {
                guard let profile = files.profile(name) else { continue }
                let bytes = profile.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count }
                // Lower case may take more bytes than upper case.
                try expect(bytes <= 3 * text.utf8.count, "\(bytes) bytes of settings")
                for (key, value) in profile {
                    try expect(!(key + value).contains(where: \.isNewline), "a setting of two lines: \(key)")
                }
            }
        }
    }

    private static func netrc(_ input: [UInt8]) throws {
        let text = String(decoding: input, as: UTF8.self)
        for host in ["example.org", "host", ""] {
            guard let entry = HTTPCredentials.netrcEntry(for: host, in: text) else { continue }
            for word in [entry.login, entry.password] {
                try expect(word.isEmpty || text.contains(word), "a word that is not in the file")
                try expect(
                    !word.contains(where: { [" ", "\t", "\n", "\r", "\r\n"].contains($0) }), "two words for one")
            }
        }
    }

    /// What programs and metadata services print.
    private static func credentials(_ input: [UInt8]) throws {
        for version in [nil, 1] {
            guard let found = TemporaryCredentials(json: input, version: version) else { continue }
            let keys = found.credentials
            let bytes = [keys.accessKey, keys.secretKey, keys.sessionToken ?? ""].reduce(0) { $0 + $1.utf8.count }
            try expect(bytes <= 3 * input.count, "\(bytes) bytes of credentials")
        }
    }
}
