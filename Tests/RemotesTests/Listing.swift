import HSMCore

/// What a listing reported, by path.
struct Listing: Sendable {
    var entries: [[UInt8]: RemoteEntry] = [:]
    var top: RemoteEntry?
    var unreadable: [(RemoteKey, FillError)] = []
    var deepest = 0
    var leaves = 0

    init(_ source: any RemoteStore) async throws {
        // Paths of the directories that are entered.
        var path: [[UInt8]] = []
        var result = Listing()
        try await source.list { event in
            switch event {
            case .enter(let entry):
                if entry.name.isEmpty { result.top = entry } else { result.note(entry, path) }
                path.append(path.isEmpty ? [] : Self.join(path[path.count - 1], entry.name))
                result.deepest = max(result.deepest, path.count)
            case .entry(let entry): result.note(entry, path)
            case .leave:
                path.removeLast()
                result.leaves += 1
            case .unreadable(let key, let error): result.unreadable.append((key, error))
            }
        }
        self = result
    }

    private init() {}

    private static func join(_ path: [UInt8], _ name: [UInt8]) -> [UInt8] { path.isEmpty ? name : path + [0x2f] + name }

    private mutating func note(_ entry: RemoteEntry, _ path: [[UInt8]]) {
        entries[Self.join(path[path.count - 1], entry.name)] = entry
    }

    var paths: Set<String> { Set(entries.keys.map { String(decoding: $0, as: UTF8.self) }) }

    subscript(_ path: String) -> RemoteEntry? { entries[Array(path.utf8)] }

    func object(_ path: String) -> RemoteObject? {
        if case .file(let object) = self[path]?.kind { object } else { nil }
    }
}
