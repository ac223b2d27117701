extension FixedWidthInteger {
    /// Parses a number that consists of ASCII digits only. Signs and spaces, which Swift's own initialisers accept, are
    /// refused.
    ///
    /// Nil for an empty text, for any other character, and for a number that does not fit the type.
    package init?(digits text: some StringProtocol, radix: Int = 10) {
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        self.init(text, radix: radix)
    }
}
