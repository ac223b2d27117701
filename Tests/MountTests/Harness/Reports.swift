/// `passhsm status --json`.
struct Status: Decodable {
    struct Passthrough: Decodable {
        let enabled: Bool
        let reason: String
    }

    struct Remote: Decodable {
        let isDown: Bool
        let seconds: Int?
        let cause: String?
    }

    let pid: Int32
    let source: String
    let remote: Remote
    let options: [String: String]
    let cache: String
    let passthrough: Passthrough
    let counters: [String: Int]
    let requests: [String: Int]
    let waiting: Int
    let knownInodes: Int
    let incompleteFiles: Int
    let openHandles: Int
    let openDescriptors: Int
    let backingIDs: Int
    let warnings: [String]

    /// A counter of the engine; a name that is not there is an error of the test.
    func counter(_ name: String) -> Int { counters[name] ?? -1 }
}

/// An element of `passhsm state --json`.
struct FileState: Decodable {
    let path: String
    let kind: String
    let state: String
    let flags: [String]
    let size: Int
    let presentBytes: Int
    let ranges: [[Int]]
    let remoteKey: String?
    let remoteVersion: String?
    let granuleSize: Int?
    let lastError: String?
    let warning: String?
}
