import HSMCore

/// Counters with names, in the order of their display; in JSON one object.
///
/// JSON objects have no order: decoding puts the engine's counters first, in the engine's order, and others after them
/// by name.
package struct NamedCounts: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package var name: String
        package var value: Int
    }

    package private(set) var entries: [Entry]

    /// Takes ``EngineCounters/snapshot`` and the like.
    package init(_ counts: [(name: String, value: Int)] = []) {
        entries = counts.map { Entry(name: $0.name, value: $0.value) }
    }

    package subscript(name: String) -> Int? { entries.first { $0.name == name }?.value }
}

extension NamedCounts: Codable {
    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Name.self)
        let known = EngineCounters().snapshot.map(\.name)
        let ordered = container.allKeys.map(\.stringValue).sorted { left, right in
            let places = (known.firstIndex(of: left) ?? .max, known.firstIndex(of: right) ?? .max)
            return places.0 == places.1 ? left < right : places.0 < places.1
        }
        entries = try ordered.map { name in
            Entry(name: name, value: try container.decode(Int.self, forKey: Name(stringValue: name)))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Name.self)
        for entry in entries { try container.encode(entry.value, forKey: Name(stringValue: entry.name)) }
    }
}
