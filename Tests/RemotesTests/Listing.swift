import HSMCore

/// What a listing reported, by path.
struct Listing: Sendable {
    var entries: [[UInt8]: RemoteEntry] = [:]
    var top: RemoteEntry?
    var unreadable: [(RemoteKey, FillError)] = []
    var deepest = 0
    var leaves = 0

    init(_ source: any RemoteSource) async throws {
        var path: [[UInt8]] = []
        var result = Listing()
        try await source.list { event in
            switch event {
            case .enter(let entry):
                if entry.name.isEmpty { result.top = entry } else { result.note(entry, path) }
                path.append(entry.name)
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

    private mutating func note(_ entry: RemoteEntry, _ path: [[UInt8]]) {
        entries[Array((path.dropFirst() + [entry.name]).joined(separator: [0x2f]))] = entry
    }

    var paths: Set<String> { Set(entries.keys.map { String(decoding: $0, as: UTF8.self) }) }

    subscript(_ path: String) -> RemoteEntry? { entries[Array(path.utf8)] }

    func object(_ path: String) -> RemoteObject? {
        if case .file(let object) = self[path]?.kind { object } else { nil }
    }
}
