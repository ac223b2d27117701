import TestSupport

/// Makes inputs of seeds, as the generator's numbers have it: the same numbers, the same inputs.
struct Mutator {
    private var random: SeededRandom
    private let seeds: [[UInt8]]
    private let maxLength: Int

    /// What parsers compare, count by and allocate for.
    private static let telling: [[UInt8]] =
        [
            "0", "-1", "-0", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
            "18446744073709551615", "1e999", "1e-999", "nan", "0x", "%", "%00", "%2F", "&", "&#0;", "&#x110000;", "<",
            ">",
            "</", "<!", "<?", "<![CDATA[", "]]>", "\"", "'", "\\", "\\u0000", "\\ud800", "{", "}", "[", "]", ",", ":",
            "=",
            "/", "//", "..", "/../", "\r\n", "\n", "\t", " ", "\u{0}", "\u{1b}[2J", "\u{85}", "\u{2028}", "\u{202e}",
            "\u{feff}", "é", "e\u{301}", "\u{1f468}\u{200d}\u{1f469}",
        ].map { Array($0.utf8) } + [
            [0xff], [0xc3], [0xed, 0xa0, 0x80], [0xf4, 0x8f, 0xbf, 0xbf], [0xff, 0xff, 0xff, 0x7f], [0, 0, 0, 0x80],
            Array(repeating: 0xff, count: 8), Array(repeating: 0xff, count: 7) + [0x7f],
            Array(repeating: 0, count: 7) + [0x80], [0, 0, 0, 0, 1, 0, 0, 0],
        ]

    init(seeds: [[UInt8]], maxLength: Int, random: SeededRandom) {
        self.seeds = seeds
        self.maxLength = maxLength
        self.random = random
    }

    /// Half of the seed or all of it, and behind it one text again and again: nesting, lists, and words that never end.
    ///
    /// - Parameter length: bytes of each input at least.
    static func long(_ seed: [UInt8], _ length: Int) -> [[UInt8]] {
        let parts: [String] = [
            "<", "<a>", "<a ", "<a href=x", "<a href='b'>", "<!--", "&", "&amp;", "[", "{\"a\":", "\"", "\\", "%41",
            "/a", "\n", "\r\n",
            " ", "a=b\n", "[a]\n", "machine ", "{\"path\":\"a\",\"size\":1}\n", "9", ":", "\u{301}", "\u{0}",
        ]
        var inputs: [[UInt8]] = []
        for count in [seed.count / 2, seed.count] {
            for part in parts {
                var input = Array(seed[..<count])
                while input.count < length { input += part.utf8 }
                inputs.append(input)
            }
        }
        return inputs
    }

    mutating func next() -> [UInt8] {
        var input = seeds.randomElement(using: &random) ?? []
        for _ in 0...random.below(6) { change(&input) }
        return Array(input.prefix(maxLength))
    }

    private mutating func change(_ input: inout [UInt8]) {
        let place = random.below(input.count + 1)
        let end = min(input.count, place + 1 + random.below(random.isTrue(80) ? 8 : input.count + 1))
        switch random.below(10) {
        case 0: input.replaceSubrange(place..<end, with: (place..<end).map { _ in UInt8(random.below(256)) })
        case 1, 2:
            input.replaceSubrange(
                place..<(random.isTrue(50) ? place : end), with: Self.telling.randomElement(using: &random) ?? [])
        case 3: input.removeSubrange(place..<end)
        case 4: input.insert(contentsOf: input[place..<end], at: random.below(input.count + 1))
        case 5:
            // Much of the same: nesting, and whatever takes quadratic time.
            let part = Array(input[place..<end])
            if part.isEmpty { return }
            let count = random.below(max(1, maxLength / part.count))
            input.insert(contentsOf: Array(repeating: part, count: count).joined(), at: place)
        case 6:
            let other = seeds.randomElement(using: &random) ?? []
            let start = random.below(other.count + 1)
            input.insert(contentsOf: other[start...].prefix(random.below(64)), at: place)
        case 7: input = Array(input.prefix(place))
        default:
            if place < input.count { input[place] ^= 1 << UInt8(random.below(8)) }
        }
    }
}
