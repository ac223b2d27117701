extension FixedWidthInteger {
    /// A number of ASCII digits and nothing else: neither a sign nor a space, which Swift's own initialisers take; nil for an
    /// empty text, for anything else in it, and for what the type cannot hold.
    package init?(digits text: some StringProtocol, radix: Int = 10) {
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        self.init(text, radix: radix)
    }
}
